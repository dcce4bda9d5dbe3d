"""Clinical words that several rooms read: findings by name, English and Chinese."""
