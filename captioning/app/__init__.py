"""The user interface: the commands `caption` and `captioning`, the pipeline and the demo page.

Reads arguments and photographs, prints to the console, writes files below a root folder and serves
a page. Imports every other folder; no other folder imports it.
"""
