"""Programs over the readers in `uov_hf.datasets`: each writes a raw folder as Parquet. README.md lists them."""
