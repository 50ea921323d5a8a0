"""Pure decisions and values: no I/O, no clock, no gevent. Whatever needs no fake in its test lives here."""
