"""Can a map be trusted, under grad-cam's names: (B, H, W) arrays of maps in, an array of one number per image out."""
