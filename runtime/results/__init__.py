"""The result of scoring an image: the record, its fields, and the files it is written to."""
