"""The HTTP service for programs: a JSON API over `i2vgen_ms.service`, on FastAPI (`pip install 'i2vgen_ms[serve]'`).

`app.build` makes the application of a Service, `server.run` serves it until it is told to end.
"""
