DO $$ BEGIN EXECUTE format('LISTEN %I', 'dalsegno_' || md5(current_schema())); END $$
