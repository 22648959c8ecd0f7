"""What scoring an image gives: the record, its fields, and the files they are written to."""
