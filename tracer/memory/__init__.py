"""Aliasing: storages, views as chains of steps, writes through them."""
