"""How what a layer returns lies over the input, and which layer to draw from."""
