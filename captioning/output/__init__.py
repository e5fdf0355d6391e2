"""What the program writes for people: caption files, copies of images with descriptions, pages and
figures.

In go captions, attention maps, scores and the record of a training; out come files. The modules for
pages and figures need Jinja2 and matplotlib (the extra `plots`), `image_metadata` needs pyexiv2
(the extra `metadata`); nobody else imports them. Nothing here parses a command line, and nothing
here imports `captioning.app`.
"""
