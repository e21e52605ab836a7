"""`tidemill doctor`: examines an installation and changes nothing.

Each check takes what it examines and returns findings; `examination` runs them all. What a check needs of the server's
packages it imports itself, so that the doctor can say which of them are missing.
"""
