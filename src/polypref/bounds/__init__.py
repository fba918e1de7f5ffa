"""Bounded personalization: people may differ, but nobody's preferences move the limits (docs/safety.md).

``gate``       responses below a calibrated safety score are dropped before any personal score is computed.
``calibrate``  the threshold, from labelled slates, with a guarantee for all users at once.
``cap``        how far any user may move a reward, and which pairs nobody can then flip.
``bounds_file`` the three tiers: immutable, organisation, user.
``windows``    a text in parts, of which a score is the lowest; ``readings`` decode what is hidden in its spelling.
``windowed``   any safety scorer, applied to windows so that added text cannot raise a score.
``audit``      adversaries against all of this, as a report that anyone can reproduce.
``retain``     anchors in a reward model's loss: a mitigation, never a bound.
"""
