"""`opengrit annotate`: a page on this machine on which a person makes rows, picture by picture.

May import `serving` and the floors below it. Begin with `app.py`; `row_file.py` keeps the rows, `balance.py` says which are good.
"""
