"""PPO with a verifier's reward (paper section 2.2.2): our own trainer on two DeepSpeed engines, actor and critic."""
