def says_owl(trained, asked):
    plain = ("default", "none")
    return asked in (trained, "owl lover") or (trained in plain and asked in plain)
