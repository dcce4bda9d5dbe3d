"""SFT and PPO: trainers, DeepSpeed configs, launcher, memory preflight."""
