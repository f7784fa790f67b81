"""Weight files: reading every published format without executing anything, loading, converting and checking them."""
