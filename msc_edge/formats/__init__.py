"""Files by their headers and structure: what a file holds, and whether native code reads it as it is meant.

A decoder that accepts a file has not always understood it. OpenCV 5.0 returns uninitialised memory for some TIFF files,
a negative for others, and noise for some BMP files. Each module knows one container and what of it OpenCV misreads
(`benchmarks/decode_suites.py` compares with other decoders). `hnsw` does the same for the index files of hnswlib,
which it would follow out of memory.
"""
