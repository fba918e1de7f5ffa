"""Bounded personalization: people may differ, and nobody's preferences move the line. docs/safety.md says what holds.

``gate``       responses under a calibrated safety score are dropped before any personal score is looked at.
``calibrate``  the threshold, from labelled slates, with a guarantee for all users at once.
``cap``        how far any user may move a reward, and which pairs nobody can flip then.
``bounds_file`` the three tiers: immutable, organisation, user.
``windows``    a text in parts, of which a score is the least; ``readings`` are what it says beside what it shows.
``windowed``   any safety scorer asked about windows, so that added text cannot raise a score.
``audit``      adversaries against all of it, as a report that anyone can run again.
``retain``     anchors in a reward model's loss: a mitigation, never a bound.
"""
