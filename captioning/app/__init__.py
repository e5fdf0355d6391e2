"""The user interface: the commands `caption` and `captioning`, the pipeline and the demo page.

These modules read arguments and photographs, print to the console, write files below a root folder
and serve a page. They may import every other folder; no other folder imports them.
"""
