"""``polypref serve``: a scorer behind HTTP that orders answers for the person who asks and learns from use.

``core``      the one function that every route asks; no route can pass the bounds.
``person``    who asks: five ways in which a client can name a user.
``people``    what a person's judgements make of the scorer, derived anew whenever they change.
``store``     what a store keeps, and its contract; ``sqlite`` is the embedded one.
``app``       the routes; ``rerank`` and others parse and render one family of clients each, without logic.
"""
