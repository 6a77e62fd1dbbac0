"""A small stand-in for an Open WebUI-style host with YooKassa wallets, flaws included."""
