"""Loading of targets files into targets.

conflicts     Validation across queries and targets: selectors without a target, and attributes with two
              values.
json_schema   JSON Schema of targets files, for completion and validation in editors.
load          Loader that reads targets files and folders of them into validated targets.
schema        The schema of a targets file: its defaults, and a target.
targets_file  Targets file as parsed YAML, whose problems never contain a text of the file.
"""
