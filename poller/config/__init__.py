"""Loading of environment variables and YAML files into Settings and Catalog.

attributes       Names and values of attributes that OTLP and Prometheus can carry.
catalog_process  Loader of the queries and targets for reloads, which reads the files in a child process.
environment      Settings source for environment variables and `*_FILE` secrets, which records each variable's
                 name.
error_messages   Error messages for query and targets files, made from pydantic's validation errors.
fields           Base model of the parts of query and targets files: strict keys and conversion to a
                 definition.
file_watcher     Watcher that reloads query files and targets after a change or on request.
load             Loader of the query files and the targets, which reports the problems of both at once.
load_settings    Loader of the settings from options, environment variables and defaults; an option overrides
                 a variable.
loader_process   Child process that reads the command line, the settings and the query files for the daemon.
orphans          Reaper of orphaned processes, for a poller that is process 1 of a container.
queries          Loading of query files into a Catalog.
setting          Declaration of a setting: its type, default, variables, limits and texts.
setting_rules    Rules about several settings: a single database, the leader election and shards.
settings         Settings of the poller: their table, and the effective values with their sources.
targets          Loading of targets files into targets.
yaml_file        YAML file of the configuration: its data, the locations of its keys, and its structural
                 errors.
yaml_reader      Strict YAML reader that records the position of every key.
yaml_text        YAML serializer in block style.
"""
