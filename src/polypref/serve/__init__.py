"""``polypref serve``: a scorer behind HTTP that ranks answers for the person who asks, and learns from use.

``core``      the one function that every route calls; no route can bypass the bounds.
``person``    who asks: the five ways in which a client can name a user.
``people``    the scorer adapted to a person's judgements, computed again whenever they change.
``store``     what a store keeps, and its contract; ``sqlite`` is the embedded store.
``app``       the routes; ``rerank`` and others each parse and render for one family of clients, without logic.
"""
