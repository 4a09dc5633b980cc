"""Applications that show people what a model sees. No lower layer imports them."""
