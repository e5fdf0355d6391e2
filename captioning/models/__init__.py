"""The networks in Keras: image encoders, caption models, their ensemble and their one-step form.

Builders take sizes and settings and return Keras models with random or given weights; the callers
compile, train, export and save them. Runs on any Keras backend. Never imports `data`, and of
`captioning` nothing but `settings` and `files`.
"""
