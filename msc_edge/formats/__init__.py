"""Image files by their headers: what a file holds, and whether OpenCV reads it as it is meant.

A decoder that accepts a file has not always understood it. OpenCV 5.0 returns uninitialised memory for some TIFF files,
a negative for others, and noise for some BMP files. Each module knows one container and what of it OpenCV misreads
(`benchmarks/decode_suites.py` compares with other decoders).
"""

DAMAGED = "not an image, or a truncated or damaged one"
