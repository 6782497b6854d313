"""Images as pixels: the uint8 conversion, decoding, resize and crop recipes, grids."""
