module clinical-r1.test/pause

go 1.24
