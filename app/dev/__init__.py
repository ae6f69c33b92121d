"""``tidegate dev``: a bridge, a broker and a few sensors in one terminal, for trying out."""
