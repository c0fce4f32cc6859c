"""How good an editor is, measured against a world whose truth is exact."""
