"""The pictures that a benchmark's rows name, brought beside them: from public hosts, from archives, from your disk.

Begin with `fetch.py`. Where a picture is: `addresses.py`; one download: `download.py`; archives: `archives.py` and
`parquet.py`, `treebench.py`; what is kept, and on which proof: `kept.py`.
"""
