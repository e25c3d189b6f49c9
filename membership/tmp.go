package membership

const maxDedupe = 4096
