-- Roles with no more rights than their work needs. They cannot log in; grant one of them to the user of a service:
--   GRANT orchestrix_writer TO bank;
-- Roles belong to the whole server, so they are made only where they are missing, and only by a user who may.

DO $$
DECLARE
    v_role    text;
    v_missing text[];
    v_name    text;
    v_may     bool := (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user);
    v_roles   text[] := ARRAY['orchestrix_owner', 'orchestrix_migrator', 'orchestrix_writer', 'orchestrix_reader',
                              'orchestrix_projector', 'orchestrix_archiver'];
BEGIN
    IF v_may THEN
        FOREACH v_role IN ARRAY v_roles LOOP
            BEGIN
                IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = v_role) THEN
                    EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
                END IF;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- Another database of this server made it at the same moment.
            END;
        END LOOP;
    END IF;
    SELECT array_agg(wanted) INTO v_missing FROM unnest(v_roles) AS wanted
     WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = wanted);
    IF v_missing IS NOT NULL THEN
        RAISE WARNING 'the roles % were not made, since % may not create roles; everything belongs to % alone. See '
            'docs/internals/postgres.md for how to make them later', v_missing, current_user, current_user;
        RETURN;
    END IF;
    GRANT USAGE ON SCHEMA orchestrix TO orchestrix_owner, orchestrix_migrator, orchestrix_writer, orchestrix_reader,
        orchestrix_projector, orchestrix_archiver;
    GRANT SELECT ON ALL TABLES IN SCHEMA orchestrix TO orchestrix_migrator, orchestrix_writer, orchestrix_reader,
        orchestrix_projector, orchestrix_archiver;
    GRANT ALL ON SCHEMA orchestrix TO orchestrix_owner, orchestrix_migrator;
    GRANT ALL ON ALL TABLES IN SCHEMA orchestrix TO orchestrix_owner, orchestrix_migrator;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA orchestrix TO orchestrix_owner, orchestrix_migrator;
    -- The writer adds events and never changes or removes one.
    GRANT INSERT ON orchestrix.events TO orchestrix_writer;
    GRANT UPDATE (pinged_at) ON orchestrix.meta TO orchestrix_writer;
    GRANT UPDATE ON orchestrix.shards TO orchestrix_writer;
    GRANT USAGE ON SEQUENCE orchestrix.generations TO orchestrix_writer;
    GRANT INSERT, UPDATE, DELETE ON orchestrix.fences, orchestrix.nodes, orchestrix.snapshots, orchestrix.checkpoints,
        orchestrix.quarantine TO orchestrix_writer;
    GRANT DELETE ON orchestrix.events TO orchestrix_archiver;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA orchestrix FROM PUBLIC;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA orchestrix TO orchestrix_owner, orchestrix_migrator, orchestrix_writer;
    -- A projection keeps tables of its own; of the log's it moves its checkpoints, through the function that checks the fence.
    GRANT EXECUTE ON FUNCTION orchestrix.save_checkpoint TO orchestrix_projector;
    BEGIN
        IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            EXECUTE format('GRANT orchestrix_owner TO %I', current_user);
        END IF;
        GRANT orchestrix_owner TO orchestrix_migrator;
        FOR v_name IN SELECT c.oid::regclass::text FROM pg_class AS c
             WHERE c.relnamespace = 'orchestrix'::regnamespace AND c.relkind IN ('r', 'p') LOOP
            EXECUTE format('ALTER TABLE %s OWNER TO orchestrix_owner', v_name);
        END LOOP;
        ALTER SEQUENCE orchestrix.generations OWNER TO orchestrix_owner;
        FOR v_name IN SELECT p.oid::regprocedure::text FROM pg_proc AS p
             WHERE p.pronamespace = 'orchestrix'::regnamespace LOOP
            EXECUTE format('ALTER FUNCTION %s OWNER TO orchestrix_owner', v_name);
        END LOOP;
        ALTER SCHEMA orchestrix OWNER TO orchestrix_owner;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING 'the schema stays with %, since % may not give it to orchestrix_owner', current_user, current_user;
    END;
END $$;
