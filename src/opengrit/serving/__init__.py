"""The server: one model, or several, behind an HTTP API and a page. It needs the extra `serve`.

May import `doctor` and the floors below it. Begin with `app.py`; `service.py` answers
the requests, the engines are `local.py` and `remote.py`, the page is `page.py`.
"""
