"""The networks in Keras: image encoders, caption models, their ensemble and their one-step form.

Builders take sizes and settings and return Keras models with random or given weights. The callers
compile, train, export and save the models. The code runs on any Keras backend. It imports no other
folder of this package.
"""
