"""How bots are reached. Implements `landline.ports.BotTransport`."""
