complete -c proxytop -l base-id -d 'The instance with this base-id [default: the only one there is, or a list to choose from]' -r
complete -c proxytop -l run-dir -d 'Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]' -r -F
complete -c proxytop -l shm-dir -d 'Directory of the counters, in memory' -r -F
complete -c proxytop -l admin -d 'Asks an admin port instead, such as host:9901: of a proxyd on another host, or of an Envoy' -r
complete -c proxytop -s i -l interval -d 'Time between two looks, in seconds' -r
complete -c proxytop -l pane -d 'The pane to begin with, by its key or its name' -r
complete -c proxytop -l size -d 'Size of the frame that --once prints' -r
complete -c proxytop -l record -d 'Keeps every look in a file, for --replay' -r -F
complete -c proxytop -l replay -d 'Shows what was recorded; the keys [ ] { } go through time' -r -F
complete -c proxytop -l access-log -d 'The access log to follow [default: the first file that the configuration names]' -r -F
complete -c proxytop -l once -d 'Prints one frame as text and ends'
complete -c proxytop -l json -d 'Prints one look as JSON and ends'
complete -c proxytop -l allow-actions -d 'Allows actions: drain, health checks failed or passed, log levels, hot restart. Each asks before it is done'
complete -c proxytop -l ascii -d 'Draws with ASCII characters only'
complete -c proxytop -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxytop -s V -l version -d 'Print version'
