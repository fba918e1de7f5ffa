"""P-GRPO: policies that learn from everyone's feedback. The core is numpy alone; only ``trainer`` needs TRL."""
