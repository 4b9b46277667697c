"""The server: one model, or several, behind an HTTP API and a page. It needs the extra `serve`."""
