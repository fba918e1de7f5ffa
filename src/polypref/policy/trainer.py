"""P-GRPO on TRL under the name that training scripts import; the code is in ``trl``."""

from polypref.policy.trl import PGRPOConfig, PGRPOTrainer

__all__ = ["PGRPOConfig", "PGRPOTrainer"]
