"""Who takes part in `benchmarks/aggregation.py`, and how one of them takes its turn, in a process of its own.

`folkmoot`, `flower`, `nvflare` and `reading` are the contenders, each run by the Python that has its packages; so they
import nothing of ours but `turn` and `update_file`, which need no more than NumPy.
"""
