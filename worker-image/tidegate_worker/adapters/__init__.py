"""Everything that touches the outside: files, network, tritonserver, devices.

Library errors become one of these here, once:

ModelError (core/errors.py)   one model's files or configuration are at fault
TritonUnreachableError        the server did not answer: it starts, crashed, or hangs
"""
