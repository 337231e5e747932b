"""GraphQL over the documents of an application (seed S1, "GraphQL Support").

Room: one endpoint in modules of one step each. `routes` is light and loads the others, and with them graphql-core,
when the first request comes.

    names ─► schema ─► engine ─► routes      a schema for each application, made of its models
    limits ─────────────┘ │                  what a document may cost, before and after it is read
    resolvers, filters ───┤                  root fields: the records of `services.records`
    selection ────────────┘                  what is selected of records, without a resolver a field
    protocol, subscription ─► socket         graphql-transport-ws over the machinery of `streaming`
"""
