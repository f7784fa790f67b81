"""Random inputs for everything that reads what strangers made: `python -m tests.hostile.fuzz --seconds 300`.

`targets.py` says what is read and from which samples it starts, `engine.py` tries inputs, guided by the lines of this
package that they reach. The property: only this package's own errors come out, within bounds of time and memory.
"""
