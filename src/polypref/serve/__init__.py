"""``polypref serve``: a scorer behind HTTP that ranks answers for the person who asks, and learns from use.

``core``       the one function that every route calls; no route can bypass the bounds. ``in_force`` is what it asks.
``people``     the scorer adapted to a person's judgements, computed again whenever they change.
``who``        who asks: the ways in which a client can name a person.
``dialects``   the wire formats of clients: each parses and renders for one family of them, without logic.
``routes``     feedback, people, questions, the page, operators.
``store``      what is kept of people, in SQLite or PostgreSQL, encrypted if wished.
``refitting``  a scorer fitted anew from the store, and its way into force.
``running``    the process around all this: server, workers, limits, log, metrics.
``app``        puts them together; ``start`` builds it from files, ``client`` asks it.
"""
