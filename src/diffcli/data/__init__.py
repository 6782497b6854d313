"""Prepared datasets, folders and given images: sources, reader and writer, sampling order, batches."""
