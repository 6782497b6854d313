"""Prepared datasets and image folders: sources, reader and writer, sampling order, batches."""
