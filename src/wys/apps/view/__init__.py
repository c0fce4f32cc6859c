"""`wys view`: a scene in the browser. Only `panel`, `photographs` and `viewer` know viser."""
