"""What a person touches: the commands `caption` and `captioning`, the pipeline, the demo page.

In go arguments, photographs and captions; out come lines on the console, files below a root folder
and a page in the browser. It may import every other folder, and no other folder imports it.
"""
