"""`wys page`: images in the browser. Only `app.py` and `layout.py` know Gradio."""
